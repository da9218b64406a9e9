"""An image file's bytes -> the one form that every packed photo has, or the reason why not."""
