//! Topics that a platform team made, or that come back, and clusters that are shared.
