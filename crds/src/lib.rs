//! batos-crds
