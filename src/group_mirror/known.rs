//! What is known of one partition's offset in Kafka: which writes are ours. Decides only that.

use std::collections::VecDeque;

/// One partition's offset.
#[derive(Debug, Default)]
pub struct Known {
    /// What Kafka has, as far as anybody can know; none: nothing.
    pub kafka: Option<i64>,
    /// Copies that were sent and not seen in the log yet, oldest first. One without an answer stays:
    /// it may appear.
    sent: VecDeque<i64>,
}

impl Known {
    /// As it was read, with the last copy that may not have arrived yet.
    pub fn read(kafka: Option<i64>, sent: Option<i64>) -> Self {
        Self { kafka, sent: sent.filter(|sent| kafka != Some(*sent)).into_iter().collect() }
    }

    /// The log shows a write. True: it is ours. Copies before it will not appear any more.
    pub fn wrote(&mut self, offset: i64) -> bool {
        self.kafka = Some(offset);
        let Some(at) = self.sent.iter().position(|sent| *sent == offset) else { return false };
        self.sent.drain(..=at);
        true
    }

    /// A reading shows an offset. True: it is not what was there before.
    pub fn differs(&mut self, offset: i64) -> bool {
        let ours = self.kafka.is_none_or(|kafka| kafka == offset) || self.sent.contains(&offset);
        self.sent.clear();
        self.kafka = Some(offset);
        !ours
    }

    /// Deleted with the tools, or run out: that is no reset, and the next copy makes it anew. Copies
    /// that the log has not shown yet may still appear.
    pub fn deleted(&mut self) {
        self.kafka = None;
    }

    pub fn send(&mut self, offset: i64) {
        self.sent.push_back(offset);
    }

    /// The broker has taken the last copy, or said no to it.
    pub fn answered(&mut self, offset: i64, taken: bool) {
        if taken {
            self.kafka = Some(offset);
        } else {
            self.sent.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_not_sent_is_a_reset_wherever_it_falls() {
        let mut known = Known::read(Some(5), Some(5));
        known.send(10);
        known.answered(10, true);
        // Set just before our copy arrived, which overwrote it.
        assert!(!known.wrote(3));
        assert!(known.wrote(10));
        assert!(!known.wrote(10), "the same again is not ours");
        // To the very offset that we were sending: one of both is a reset.
        known.send(12);
        assert!(known.wrote(12));
        assert!(!known.wrote(12));
    }

    #[test]
    fn what_was_deleted_is_copied_again_and_a_reset_behind_it_is_still_one() {
        let mut known = Known::read(Some(5), Some(5));
        known.send(7);
        known.answered(7, true);
        known.deleted();
        assert_eq!(known.kafka, None);
        assert!(known.wrote(7), "sent before, written after");
        known.deleted();
        known.send(7);
        known.answered(7, true);
        assert!(known.wrote(7), "the copy that made it anew");
        known.deleted();
        assert!(!known.wrote(0), "set by somebody else");
    }

    #[test]
    fn a_copy_without_an_answer_may_appear_until_a_later_one_has() {
        let mut known = Known::read(Some(5), Some(7));
        assert!(known.wrote(7), "sent before the start");
        known.send(8);
        known.send(9);
        assert!(known.wrote(9));
        assert!(!known.wrote(8), "it cannot appear behind a later one");
        known.send(11);
        known.answered(11, false);
        assert!(!known.wrote(11), "the broker said no to it");
    }

    #[test]
    fn what_is_read_is_compared_with_what_was_there() {
        let mut known = Known::default();
        assert!(!known.differs(4), "nothing was known");
        assert!(!known.differs(4));
        known.send(6);
        assert!(!known.differs(6), "ours, unanswered");
        assert!(known.differs(4));
        assert_eq!(known.kafka, Some(4));
    }
}
