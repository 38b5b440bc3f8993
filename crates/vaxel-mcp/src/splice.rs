//! Byte edits of a message: what has to change is replaced, everything else stays as it came.

use std::ops::Range;

use bytes::Bytes;

/// Edits of one message, applied together.
pub struct Splice<'a> {
    base: &'a [u8],
    /// Kept in order of position; ranges do not overlap.
    edits: Vec<(Range<usize>, &'a [u8])>,
}

impl<'a> Splice<'a> {
    /// No edits yet.
    pub const fn new(base: &'a [u8]) -> Self {
        Self {
            base,
            edits: Vec::new(),
        }
    }

    /// Puts `with` in the place of `range`; an empty range inserts. Ranges must lie within the
    /// message and must not overlap one another; one that does is ignored.
    pub fn replace(&mut self, range: Range<usize>, with: &'a [u8]) {
        let at = self
            .edits
            .partition_point(|(other, _)| other.end <= range.start);
        let free = self
            .edits
            .get(at)
            .is_none_or(|(next, _)| range.end <= next.start);
        debug_assert!(free && range.start <= range.end && range.end <= self.base.len());
        if free && range.start <= range.end && range.end <= self.base.len() {
            self.edits.insert(at, (range, with));
        }
    }

    /// The edited message, allocated once.
    pub fn apply(&self) -> Bytes {
        let grown: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(self.base.len() + grown);
        let mut done = 0;
        for (range, with) in &self.edits {
            out.extend_from_slice(&self.base[done..range.start]);
            out.extend_from_slice(with);
            done = range.end;
        }
        out.extend_from_slice(&self.base[done..]);
        Bytes::from(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_any_order_and_the_rest_stays() {
        let mut splice = Splice::new(b"0123456789");
        splice.replace(7..8, b"seven");
        splice.replace(2..4, b"");
        splice.replace(0..0, b">");
        assert_eq!(&splice.apply()[..], b">01456seven89");
    }
}
