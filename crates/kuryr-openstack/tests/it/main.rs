//! The client against small servers that follow a script.

mod auth;
mod calls;
mod config;
mod connect;
mod faults;
mod server;
