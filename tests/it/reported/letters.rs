//! What cannot be applied or is no command: parked, kept, shown and sent again.
