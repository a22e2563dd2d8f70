//! A hundred thousand damaged and forged frames: nothing panics, and whatever is still taken for
//! a message is one that our own side could have sent.

use super::samples::one_of_each;
use super::*;

/// Xorshift: the same frames in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// A value that tends to hurt: borders, ones, or anything.
    fn byte(&mut self) -> u8 {
        match self.below(6) {
            0 => 0,
            1 => 0xff,
            2 => 0x80,
            3 => 1 << self.below(8),
            _ => self.below(256) as u8,
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = one_of_each()
        .iter()
        .map(|(m, len)| frame(m, *len))
        .collect();
    let hello = ControlHello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: "lab".into(),
        from: "alpha".into(),
        to: "beta".into(),
        process: 7,
        keepalive_ms: 500,
    };
    for control in [
        Control::Hello(hello),
        Control::Ping { n: 1 },
        Control::Pong { n: 1 },
        Control::Vote {
            volume: "pg".into(),
            ballot: samples::ballot(),
        },
        Control::Vote {
            volume: "pg".into(),
            ballot: samples::table(),
        },
    ] {
        let mut out = Vec::new();
        encode_control(&control, 1, &mut out);
        frames.push(out);
    }
    frames
}

fn mutate(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(frame.len());
        match random.below(8) {
            0 => frame.truncate(HEADER_LEN.max(at)),
            1 => frame.extend((0..random.below(40)).map(|n| n as u8)),
            2 => frame[4] = random.below(64) as u8,
            3 => frame[8] = random.byte(),
            4 if frame.len() > HEADER_LEN => {
                frame.remove(HEADER_LEN + random.below(frame.len() - HEADER_LEN));
            }
            _ => frame[at] = random.byte(),
        }
    }
    // Most forgeries carry a right checksum, or nothing behind it would ever be tried.
    if random.below(8) != 0 {
        reseal(frame);
    }
}

#[test]
fn a_hundred_thousand_forgeries_never_panic() {
    let corpus = corpus();
    let mut random = Random(0x853c_49e6_748f_ea9b);
    let (mut taken, mut skipped, mut refused) = (0, 0, 0);
    for round in 0..100_000 {
        let mut frame = corpus[round % corpus.len()].clone();
        mutate(&mut frame, &mut random);
        let Ok((header, body)) = open(&frame) else {
            refused += 1;
            continue;
        };
        if let Ok(Some(control)) = parse_control(&header, body) {
            let mut again = Vec::new();
            encode_control(&control, 1, &mut again);
            let (header, body) = open(&again).unwrap();
            assert_eq!(parse_control(&header, body), Ok(Some(control)));
        }
        match parse_body(&header, body) {
            Ok(Parsed::Message { message, sums }) => {
                taken += 1;
                let sums: Vec<u64> = sums.iter().collect();
                let mut again = Vec::new();
                encode(&message, 1, &sums, header.payload_len, &mut again);
                assert_eq!(read(&again), Ok(Some((message, sums))));
            }
            Ok(Parsed::Skipped) => skipped += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 10_000 && skipped > 100 && refused > 10_000,
        "{taken} taken, {skipped} skipped, {refused} refused"
    );
}
