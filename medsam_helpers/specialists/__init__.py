"""The networks that SAM is compared with."""
