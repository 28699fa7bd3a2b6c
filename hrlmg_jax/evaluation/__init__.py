"""Online and offline tests, and the policies that take part in them."""
