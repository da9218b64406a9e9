"""An image file's bytes -> the form that every packed photo has, or the reason why it is rejected."""
