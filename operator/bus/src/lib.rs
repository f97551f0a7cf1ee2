//! batos-bus
