//! The commands that speak to a broker.
