//! batos-controller
