//! The builder of box.
