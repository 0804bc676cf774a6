//! From sensor to log sets
