//! The store of box.
