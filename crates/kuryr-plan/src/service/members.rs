//! From endpoints to members.
