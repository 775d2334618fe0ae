//! The answers of one source partition: written down in the order of the log, and repeated from what an earlier version wrote.
//!
//! An entry is the distance of its offset to that of the entry before, a hash of the request, and the encoded answer with its length.

use crate::error::BoxError;
use crate::journal::{Journal, JournalReader, StoredJournal};

/// Writes entries; see the module's page.
#[derive(Default)]
pub(super) struct Answers {
    journal: Journal,
    /// The offset of the last entry.
    last: u64,
}

impl Answers {
    /// Goes on with what a checkpoint has.
    pub(super) fn restore(journal: Option<&StoredJournal>, last: u64) -> Result<Answers, BoxError> {
        let journal = journal.map(Journal::restore).transpose()?.unwrap_or_default();
        Ok(Answers { journal, last })
    }

    pub(super) fn write(&mut self, offset: u64, request: u32, answer: &[u8]) {
        self.journal.push(offset.saturating_sub(self.last));
        self.journal.push(u64::from(request));
        self.journal.push_bytes(answer);
        self.last = self.last.max(offset);
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

/// Reads entries beside the log.
pub(super) struct Repeats {
    journal: JournalReader,
    /// The entries of the offset in hand that have not been asked for.
    at: u64,
    entries: Vec<(u32, Vec<u8>)>,
    /// The first entry behind that offset.
    next: Option<(u64, u32, Vec<u8>)>,
}

impl Repeats {
    pub(super) fn begin(journal: &StoredJournal) -> Result<Repeats, BoxError> {
        let mut repeats = Repeats { journal: journal.read(), at: 0, entries: Vec::new(), next: None };
        repeats.next = repeats.read(0)?;
        Ok(repeats)
    }

    fn read(&mut self, before: u64) -> Result<Option<(u64, u32, Vec<u8>)>, BoxError> {
        const CUT: &str = "the journal ends within an entry";
        let Some(distance) = self.journal.number()? else { return Ok(None) };
        let request = self.journal.number()?.ok_or(CUT)?;
        let answer = self.journal.bytes()?.ok_or(CUT)?;
        let request = u32::try_from(request).map_err(|_| "the journal is not one of answers")?;
        Ok(Some((before.saturating_add(distance), request, answer)))
    }

    /// What the earlier version was answered to this request about the record at `offset`, if it had asked. Offsets never fall.
    pub(super) fn answer_to(&mut self, offset: u64, request: u32) -> Result<Option<Vec<u8>>, BoxError> {
        if offset != self.at {
            self.entries.clear();
            self.at = offset;
        }
        while let Some((of, request, answer)) = self.next.take_if(|(of, ..)| *of <= offset) {
            if of == offset {
                self.entries.push((request, answer));
            }
            self.next = self.read(of)?;
        }
        let found = self.entries.iter().position(|(of, _)| *of == request);
        Ok(found.map(|index| self.entries.remove(index).1))
    }

    /// Whether nothing is left to repeat.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_none() && self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(answers: &mut Answers) -> StoredJournal {
        let (chunks, tail) = answers.journal.at_barrier(1, 0);
        let files: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.content.clone().unwrap()).collect();
        let names = chunks.into_iter().map(|chunk| chunk.name).collect();
        StoredJournal::new(names, tail, move |index| Ok(files[index].clone()))
    }

    #[test]
    fn answers_are_found_by_offset_and_request_and_what_was_not_asked_is_not() {
        let mut answers = Answers::default();
        for offset in (0..10_000).step_by(3) {
            answers.write(offset, 1, format!("one {offset}").as_bytes());
            answers.write(offset, 2, format!("two {offset}").as_bytes());
            answers.write(offset, 2, &vec![7; (offset % 5000) as usize]);
        }
        let stored = stored(&mut answers);
        let mut repeats = Repeats::begin(&stored).unwrap();
        for offset in (0..10_000).step_by(2) {
            let mut answer = |request| repeats.answer_to(offset, request).unwrap();
            if offset % 3 > 0 {
                assert_eq!(answer(1), None);
                continue;
            }
            // In another order than they were written, and one of them not at all.
            assert_eq!(answer(2).unwrap(), format!("two {offset}").as_bytes());
            assert_eq!(answer(2).unwrap(), vec![7; (offset % 5000) as usize]);
            assert_eq!((answer(2), answer(3)), (None, None));
        }
        assert!(!repeats.is_over());
        assert_eq!(repeats.answer_to(20_000, 1).unwrap(), None);
        assert!(repeats.is_over());
    }

    #[test]
    fn a_journal_of_something_else_is_refused() {
        let not_answers = StoredJournal::new(vec![], vec![1, 255, 255, 255, 255, 127, 0], |_| Ok(vec![]));
        let problem = Repeats::begin(&not_answers).err().unwrap().to_string();
        assert!(problem.contains("not one of answers"), "{problem}");
        let cut = StoredJournal::new(vec![], vec![1, 1, 9, 0], |_| Ok(vec![]));
        assert!(Repeats::begin(&cut).err().unwrap().to_string().contains("ends within"));
    }
}
