//! A small generator of reproducible numbers.

/// SplitMix64: one multiplication chain per number, any seed is good.
#[derive(Clone, Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    /// `bytes` in pieces of 1 to `longest` bytes.
    pub fn pieces<'a>(&mut self, mut bytes: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(longest)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    /// `bytes` with a few changes: bits flipped, runs dropped, repeated or overwritten, and numbers
    /// at the edges of their range put in.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len() + 1);
            let length = self.below(9).min(out.len() - at);
            match self.below(6) {
                0 if at < out.len() => out[at] ^= 1 << self.below(8),
                1 => drop(out.drain(at..at + length)),
                2 => {
                    let copy = out[at..at + length].to_vec();
                    out.splice(at..at, copy);
                }
                3 => out.truncate(at),
                4 => {
                    let edge = [0, 1, 0x7fff_ffff, 0xffff_ffff, 4096, 4097, 65536, 65537];
                    let edge = u32::to_be_bytes(edge[self.below(8)]);
                    let length = (out.len() - at).min(4);
                    out.splice(at..at + length, edge);
                }
                _ => {
                    let noise = self.draw().to_be_bytes();
                    out.splice(at..at + length, noise);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference() {
        let mut numbers = SplitMix(1_234_567);
        assert_eq!(numbers.draw(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.draw(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn pieces_are_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(SplitMix(1).pieces(&bytes, 7).concat(), bytes);
    }
}
