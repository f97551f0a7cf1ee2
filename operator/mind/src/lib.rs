//! batos-mind
