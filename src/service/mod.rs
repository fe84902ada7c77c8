//! service

pub mod words;
