"""Files by digest: written to this disk in one step, brought to a shared store, swept when nothing refers to them."""
