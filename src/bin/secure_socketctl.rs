//! The client side.

fn main() {}
