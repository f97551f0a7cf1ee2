//! batos-weaver
