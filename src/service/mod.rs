//! service

pub mod signal;
pub mod text;
pub mod words;
