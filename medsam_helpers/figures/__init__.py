"""Figures: each function returns its Axes or Figure and shows nothing.

What takes `ax` draws into it. A `note` is the figure's title: it says what data is shown, and calls phantoms phantoms.
"""
