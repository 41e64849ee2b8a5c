//! Does a group grow over reports of one process, and how? Mann–Kendall's test says whether, the ratio of the late to the early slope
//! says how. Below five points nothing is said, below eight no shape.

mod series;
mod statistics;

pub use series::{Growth, Series, Watch, growth};
pub use statistics::Shape;
