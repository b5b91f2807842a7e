//! Stores to test with, and a way to look at one as a mount would show it.
#![allow(dead_code, reason = "no test binary uses all of it")]

pub(crate) mod archives;
pub(crate) mod golden;
pub(crate) mod graph;
pub(crate) mod handmade;
pub(crate) mod layered;
pub(crate) mod sample;
pub(crate) mod toy;
pub(crate) mod view;
pub(crate) mod windows;
