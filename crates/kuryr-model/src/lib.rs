//! The words of Kuryr as types.
