//! Benchmarks side by side with the field's other programs.

pub mod members;
pub mod mesh;
pub mod relay;
