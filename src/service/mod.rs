//! PURE. What should happen: no file, socket, process or clock.
pub mod columns;
pub mod context;
pub mod foreground;
pub mod machine;
pub mod policy;
pub mod signal;
pub mod spec;
pub mod target;
pub mod text;
pub mod value;
pub mod words;
