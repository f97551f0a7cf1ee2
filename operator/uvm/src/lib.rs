//! The Universal Virtual Machine: the language, and turns over the object graph.

pub mod image;
pub mod syntax;
pub mod vm;

pub mod universe;
