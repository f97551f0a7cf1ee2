//! Changes to inputs.

/// Marsaglia's xorshift64*: the same seed makes the same inputs.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            end => (self.next() >> 16) as usize % end,
        }
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// Longest input.
const MAX: usize = 64 << 10;

/// Words that mean something in some target: lengths that promise much, nesting, what the language is made of.
const WORDS: &[&[u8]] = &[
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\xda\xff\xff",
    b"\xc9\x7f\xff\xff\xff\x01",
    b"\xdd\x10\x00\x00\x00",
    b"\x91\x91\x91\x91\x91\x91\x91\x91",
    b"\x81\xa1a\x81\xa1a\x81\xa1a",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01",
    b"\xc0",
    b"\xc1",
    b"[",
    b"]",
    b"(",
    b")",
    b"(|",
    b"|)",
    b"|",
    b"{",
    b"}",
    b"#(",
    b"#",
    b"'",
    b"\"",
    b"$",
    b"^",
    b":=",
    b":",
    b".",
    b";",
    b"resend ",
    b"<-",
    b"* = ",
    b"-",
    b"16r",
    b"1e999999999",
    b"2r",
    b"[:a|",
    b"\xf0\x9f\x98\x80",
    b"\xc3",
    b"\0",
    b"\n",
    b"&a [*a, *a]",
    b"*a",
    b"&a ",
    b"- ",
    b"!!binary ",
    b"---\n",
    b"{\"$ref\":\"",
    b"{\"$int\":\"9",
    b"[[[[[[[[[[[[[[[[",
];

/// Changes `input` in one to four places; other inputs may be mixed in.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let most = 1 << dice.below(12);
        let length = dice.below(input.len().saturating_sub(at).min(most) + 1);
        let range = at..at + length;
        match dice.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = dice.next() as u8;
                }
            }
            2 => drop(input.drain(range)),
            3 => {
                let copy: Vec<u8> = input.get(range).unwrap_or_default().to_vec();
                let to = dice.below(input.len() + 1);
                let _ = input.splice(to..to, copy);
            }
            4 => {
                // Deep nesting: one piece many times.
                let piece: Vec<u8> = input.get(at..at + length.min(8)).unwrap_or_default().to_vec();
                let times = 1 << dice.below(12);
                let _ = input.splice(at..at, piece.repeat(times));
            }
            5 => input.truncate(at),
            6 | 7 => {
                if let Some(word) = dice.pick(WORDS) {
                    let end = if dice.below(2) == 0 { at } else { at + length.min(word.len()) };
                    let _ = input.splice(at..end, word.iter().copied());
                }
            }
            _ => {
                if let Some(other) = dice.pick(others) {
                    let from = dice.below(other.len() + 1);
                    let _ = input.splice(at.., other.get(from..).unwrap_or_default().iter().copied());
                }
            }
        }
        input.truncate(MAX);
    }
}
