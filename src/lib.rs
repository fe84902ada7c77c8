//! opm: a process supervisor for Linux.
//!
//! The law: a service has at most one live incarnation, ever.
//!
//! What is alive is told by lineage first: what loses its parent becomes the daemon's child. After
//! a daemon's death the next one goes by what each process inherits: two marks
//! ([`process::mark`]) and, where the daemon may give it, a time namespace
//! ([`process::Namespace`]). What proves that nothing is left: [`daemon::trees`].
//!
//! Modules in reading order: [`service`] decides (pure), [`process`] names what a Unix
//! process is (pure), [`wire`] is what goes over the socket and into files, [`sys`] holds
//! every system call, [`daemon`] turns the loop, [`cli`] asks, [`run`] supervises in
//! the foreground, [`init`] is PID 1 for one program.
#![deny(unsafe_code)]

pub mod cli;
pub mod daemon;
pub mod init;
#[doc(hidden)]
pub mod mutant;
pub mod process;
pub mod run;
pub mod service;
#[allow(unsafe_code)]
pub mod sys;
pub mod wire;
