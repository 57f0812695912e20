//! G.711 companding (ITU-T G.711, with the integer conventions of the G.191 reference software).
//!
//! Linear samples use the full 16 bits: G.711's 14-bit (µ) and 13-bit (A) values are scaled by 4 and 8.

/// The companding law of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law: PCMU, static payload type 0.
    Mu,
    /// A-law: PCMA, static payload type 8.
    A,
}

impl Law {
    /// The code of silence, for payloads that carry nothing.
    pub const fn silence(self) -> u8 {
        match self {
            Self::Mu => 0xff,
            Self::A => 0xd5,
        }
    }
}

static MU_DECODE: [i16; 256] = decode_table(Law::Mu);
static A_DECODE: [i16; 256] = decode_table(Law::A);
// The index is the sample without the bits below the finest step of the law.
static MU_ENCODE: [u8; 1 << 14] = encode_table::<{ 1 << 14 }>(Law::Mu);
static A_ENCODE: [u8; 1 << 12] = encode_table::<{ 1 << 12 }>(Law::A);

/// Decode into the caller's slice; as many samples as the shorter of both holds. Returns how many.
pub fn decode_into(law: Law, codes: &[u8], out: &mut [i16]) -> usize {
    let table = match law {
        Law::Mu => &MU_DECODE,
        Law::A => &A_DECODE,
    };
    for (sample, &code) in out.iter_mut().zip(codes) {
        *sample = table[usize::from(code)];
    }
    codes.len().min(out.len())
}

/// Encode into the caller's slice; as many samples as the shorter of both holds. Returns how many.
pub fn encode_into(law: Law, samples: &[i16], out: &mut [u8]) -> usize {
    let pairs = out.iter_mut().zip(samples);
    match law {
        Law::Mu => pairs.for_each(|(code, &x)| *code = MU_ENCODE[usize::from(x as u16 >> 2)]),
        Law::A => pairs.for_each(|(code, &x)| *code = A_ENCODE[usize::from(x as u16 >> 4)]),
    }
    samples.len().min(out.len())
}

const fn decode_table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => mu_decode(code as u8),
            Law::A => a_decode(code as u8),
        };
        code += 1;
    }
    table
}

const fn encode_table<const N: usize>(law: Law) -> [u8; N] {
    let mut table = [0; N];
    let mut index = 0;
    while index < N {
        let sample = (index * (65536 / N)) as u16 as i16;
        table[index] = match law {
            Law::Mu => mu_encode(sample),
            Law::A => a_encode(sample),
        };
        index += 1;
    }
    table
}

/// Table 2 of G.711: every bit is inverted on the line; segments double from a bias of 33 (here 132).
const fn mu_decode(code: u8) -> i16 {
    let code = !code;
    let magnitude = (((((code & 0x0f) as i16) << 3) + 132) << (code >> 4 & 7)) - 132;
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Table 1 of G.711: even bits are inverted on the line; the first two segments share a step.
const fn a_decode(code: u8) -> i16 {
    let code = code ^ 0x55;
    let step = ((code & 0x0f) as i16) << 4;
    let magnitude = match code >> 4 & 7 {
        0 => step + 8,
        segment => (step + 0x108) << (segment - 1),
    };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

/// Magnitude as one's complement, so that both signs have equally many codes.
const fn magnitude_of(sample: i16) -> u32 {
    (if sample < 0 { !sample } else { sample }) as u32
}

const fn mu_encode(sample: i16) -> u8 {
    let mut biased = magnitude_of(sample) + 132;
    if biased > 0x7fff {
        biased = 0x7fff;
    }
    let segment = biased.ilog2() - 7;
    let code = (segment << 4 | biased >> (segment + 3) & 0x0f) as u8;
    !(if sample < 0 { code | 0x80 } else { code })
}

const fn a_encode(sample: i16) -> u8 {
    let magnitude = magnitude_of(sample) >> 4;
    let code = if magnitude < 16 {
        magnitude as u8
    } else {
        let segment = magnitude.ilog2() - 3;
        (segment << 4 | magnitude >> (segment - 1) & 0x0f) as u8
    };
    (if sample < 0 { code } else { code | 0x80 }) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(law: Law, code: u8) -> i16 {
        let mut out = [0];
        assert_eq!(decode_into(law, &[code], &mut out), 1);
        out[0]
    }

    fn encode(law: Law, sample: i16) -> u8 {
        let mut out = [0];
        assert_eq!(encode_into(law, &[sample], &mut out), 1);
        out[0]
    }

    /// Output values y1..y128 as G.711 defines them: eight segments (µ), thirteen (A), of equal steps.
    fn definition(law: Law) -> Vec<i32> {
        let mut values = Vec::new();
        for segment in 0..8 {
            for step in 0..16 {
                values.push(match law {
                    // µ: decision values start at 31·(2^s − 1) … in 14 bits, outputs midway.
                    Law::Mu => 4 * ((2 * step + 33) * (1 << segment) - 33),
                    Law::A if segment == 0 => 8 * (2 * step + 1),
                    Law::A => 8 * ((2 * step + 33) * (1 << (segment - 1))),
                });
            }
        }
        values
    }

    #[test]
    fn decoding_follows_the_definition() {
        for (index, &value) in definition(Law::Mu).iter().enumerate() {
            let code = 0xff - index as u8;
            assert_eq!(i32::from(decode(Law::Mu, code)), value);
            assert_eq!(i32::from(decode(Law::Mu, code & 0x7f)), -value);
        }
        for (index, &value) in definition(Law::A).iter().enumerate() {
            let code = (0x80 | index as u8) ^ 0x55;
            assert_eq!(i32::from(decode(Law::A, code)), value);
            assert_eq!(i32::from(decode(Law::A, code ^ 0x80)), -value);
        }
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=255 {
            assert_eq!(encode(Law::A, decode(Law::A, code)), code);
            // Negative zero has no linear counterpart: the one code that cannot come back.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(encode(Law::Mu, decode(Law::Mu, code)), expected);
        }
    }

    /// The decision value: the lower end of the interval of positive code n.
    fn decision(law: Law, index: i32) -> i32 {
        let (segment, step) = (index / 16, index % 16);
        match law {
            Law::Mu if index == 0 => 0,
            Law::Mu => 4 * ((2 * step + 32) * (1 << segment) - 33),
            Law::A if segment == 0 => 16 * step,
            Law::A => 8 * ((2 * step + 32) * (1 << (segment - 1))),
        }
    }

    #[test]
    fn encoding_follows_the_decision_values() {
        for law in [Law::Mu, Law::A] {
            for sample in i16::MIN..=i16::MAX {
                let line = encode(law, sample) ^ if law == Law::Mu { 0xff } else { 0xd5 };
                assert_eq!(line & 0x80 != 0, sample < 0, "{law:?} {sample}");
                let index = i32::from(line & 0x7f);
                // One's complement: on a decision value, a negative sample belongs below, a positive one above.
                let magnitude = i32::from(if sample < 0 { !sample } else { sample });
                assert!(magnitude >= decision(law, index), "{law:?} {sample}");
                assert!(
                    index == 127 || magnitude < decision(law, index + 1),
                    "{law:?} {sample}"
                );
            }
        }
    }

    #[test]
    fn known_vectors() {
        // G.711 tables 1 and 2: zero, the extremes, and the first decision values of each sign.
        for (sample, mu, a) in [
            (0, 0xff, 0xd5),
            (3, 0xff, 0xd5),
            (4, 0xfe, 0xd5),
            (-1, 0x7f, 0x55),
            (-5, 0x7e, 0x55),
            (16, 0xfd, 0xd4),
            (1000, 0xce, 0xfa),
            (-1000, 0x4e, 0x7a),
            (i16::MAX, 0x80, 0xaa),
            (i16::MIN, 0x00, 0x2a),
        ] {
            assert_eq!(encode(Law::Mu, sample), mu, "mu {sample}");
            assert_eq!(encode(Law::A, sample), a, "A {sample}");
        }
        assert_eq!(decode(Law::Mu, 0x80), 32124);
        assert_eq!(decode(Law::A, 0xaa), 32256);
        assert_eq!(decode(Law::Mu, Law::Mu.silence()), 0);
        assert_eq!(decode(Law::A, Law::A.silence()), 8);
    }

    /// G.711 table 5: these eight µ-law codes are the 1 kHz tone at 0 dBm0 (A-law: table 6).
    #[test]
    fn digital_milliwatt_is_a_sine() {
        for (law, codes) in [
            (Law::Mu, [0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e]),
            (Law::A, [0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4]),
        ] {
            let mut tone = [0; 8];
            decode_into(law, &codes, &mut tone);
            let power = tone.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 8.0;
            // The load capacity: a sine up to the virtual decision value x128 is 3.17 (µ) or 3.14 (A) dBm0.
            let (peak, centi_dbm0) = if law == Law::Mu {
                (32636.0_f64, 317.0)
            } else {
                (32768.0, 314.0)
            };
            let below_db = 10.0 * (peak.powi(2) / 2.0 / power).log10();
            assert!((100.0 * below_db - centi_dbm0).abs() < 1.0, "{law:?}: {below_db}");
            assert_eq!(tone[0], -tone[4]);
            assert_eq!(tone[1], -tone[5]);
        }
    }

    #[test]
    fn lengths_are_the_shorter_of_both() {
        let mut out = [7; 3];
        assert_eq!(decode_into(Law::Mu, &[0xff], &mut out), 1);
        assert_eq!(out, [0, 7, 7]);
        assert_eq!(encode_into(Law::A, &[0; 4], &mut [0; 2]), 2);
    }
}
