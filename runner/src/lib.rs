//! The runner of box.
