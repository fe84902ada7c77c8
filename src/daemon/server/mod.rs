//! The daemon as a process: its start, the loop with its sockets, and who is connected.
//!
//! Only public members of [`Daemon`](super::Daemon) are used here; nothing here knows a service.
mod connection;
pub mod event_loop;
pub(crate) mod lock;
pub(crate) mod predecessor;
mod relocate;
pub mod role;
pub mod startup;
