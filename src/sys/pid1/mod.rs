//! The system calls of a PID 1 that runs one program.
//!
//! Signals are held in a mask and taken out of it one by one: no handler, no descriptor, so that
//! nothing runs behind the loop's back and nothing needs closing. It must never decide anything
//! (that is `init`'s work), never allocate before a stop begins, and never block on output.

mod child;
mod entry;
mod memory;
mod others;
mod process;
mod say;
mod signal;
mod terminal;
mod wait;
mod words;

pub use child::{Place, exit_code_of, spawn};
pub use entry::{Door, Entry, first_instant};
pub use memory::forget_start;
pub use others::{Moment, Other, children, drops, everybody};
pub use process::{
    Group, close_inherited, is_subreaper_set, own_pid, parent_pid, set_parent_death_signal,
    set_subreaper, signal_everyone, signal_group, signal_one,
};
pub use say::{Line, say, tell};
pub use signal::{
    Arrival, REAL_TIME_FIRST, REAL_TIME_LAST, SIGNAL_MAX, is_pending, next_arrival, stop_oneself,
};
pub use terminal::{Terminal, is_terminal};
pub use wait::{Reaped, reap_one};
pub use words::Words;
