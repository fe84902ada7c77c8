//! PURE. What should happen: no file, socket, process or clock.
pub mod columns;
pub mod context;
pub mod environment;
pub mod instances;
pub mod json;
pub mod listen;
pub mod machine;
pub mod name;
pub mod options;
pub mod policy;
pub mod resources;
pub mod selector;
mod setting;
pub mod signal;
pub mod spec;
pub mod time;
pub mod units;
