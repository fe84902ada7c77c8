//! process

pub mod command;
pub mod stat;
pub use command::extract_search_pattern_from_command;
