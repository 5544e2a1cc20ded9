//! What the planner promises, on machines real and made up.

mod common;
mod conflicts;
mod diagnose;
mod machines;
mod nodes;
mod oracle;
mod pc;
mod properties;
mod reach;
mod reserved;
mod scale;
