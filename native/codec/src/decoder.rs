//! Payloads of one direction of one stream to samples, without a gap.

use crate::g711::{self, Law};
use crate::plc::Concealment;
use crate::{Codec, CodecError, g722};

/// Opus conceals in steps of 2.5 ms (at 16 kHz), and at most 120 ms at a time.
const OPUS_STEP: usize = 40;
const OPUS_MAX: usize = 1920;

/// A codec's decoder together with what stands in for lost payloads. The caller owns the output, which grows.
#[derive(Debug)]
pub struct Decoder(Kind);

#[derive(Debug)]
enum Kind {
    G711(Law, Concealment),
    G722(Box<g722::Decoder>, Concealment),
    /// Conceals by itself: it knows the pitch and the spectrum.
    Opus(opus::Decoder),
}

impl Decoder {
    /// A decoder in its initial state.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`] where the codec's library has no memory.
    pub fn new(codec: Codec) -> Result<Self, CodecError> {
        let concealment = || Concealment::new(codec.decoded_hz());
        Ok(Self(match codec {
            Codec::Pcmu => Kind::G711(Law::Mu, concealment()),
            Codec::Pcma => Kind::G711(Law::A, concealment()),
            Codec::G722 => Kind::G722(Box::default(), concealment()),
            Codec::Opus => Kind::Opus(
                opus::Decoder::new(codec.decoded_hz()).map_err(|_| CodecError::Unavailable(codec))?,
            ),
        }))
    }

    /// Append the samples of `payload` to `pcm`, at [`Codec::decoded_hz`].
    ///
    /// # Errors
    /// [`CodecError::Payload`]: not a payload of the codec; nothing is appended, and the caller conceals.
    pub fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) -> Result<(), CodecError> {
        if payload.is_empty() {
            return Err(CodecError::Payload);
        }
        let start = pcm.len();
        match &mut self.0 {
            Kind::G711(law, concealment) => {
                pcm.resize(start + payload.len(), 0);
                g711::decode_into(*law, payload, &mut pcm[start..]);
                concealment.good(&mut pcm[start..]);
            }
            Kind::G722(decoder, concealment) => {
                pcm.resize(start + 2 * payload.len(), 0);
                decoder.decode_into(payload, &mut pcm[start..]);
                concealment.good(&mut pcm[start..]);
            }
            Kind::Opus(decoder) => {
                let samples = decoder.samples(payload).map_err(|_| CodecError::Payload)?;
                pcm.resize(start + samples, 0);
                let result = decoder.decode(payload, &mut pcm[start..]);
                pcm.truncate(start + result.unwrap_or(0));
                result.map_err(|_| CodecError::Payload)?;
            }
        }
        Ok(())
    }

    /// Append exactly `samples` samples in place of a lost payload, at [`Codec::decoded_hz`]. Also for the gaps of an
    /// Opus sender's DTX, where libopus goes on with comfort noise.
    pub fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.fill(None, samples, pcm);
    }

    /// As [`Decoder::conceal`], for the payload right before `following`, which may carry a copy of it at a lower
    /// quality (Opus in-band FEC, RFC 6716, 2.1.7). `following` is decoded afterwards as any other.
    pub fn recover(&mut self, following: &[u8], samples: usize, pcm: &mut Vec<i16>) {
        self.fill(Some(following), samples, pcm);
    }

    fn fill(&mut self, following: Option<&[u8]>, samples: usize, pcm: &mut Vec<i16>) {
        let start = pcm.len();
        let end = start + samples;
        match &mut self.0 {
            Kind::G711(_, concealment) | Kind::G722(_, concealment) => {
                pcm.resize(end, 0);
                concealment.lost(&mut pcm[start..]);
            }
            Kind::Opus(decoder) => {
                pcm.resize(start + samples.next_multiple_of(OPUS_STEP), 0);
                let (earlier, last) = opus_split(&mut pcm[start..], following.is_some());
                for stretch in earlier.chunks_mut(OPUS_MAX) {
                    // Silence is what is there if libopus refuses, which it does not for these lengths.
                    let _ = decoder.conceal(stretch);
                }
                if let Some(following) = following
                    && decoder.recover(following, last).is_err()
                {
                    let _ = decoder.conceal(last);
                }
                pcm.truncate(end);
            }
        }
    }
}

/// The copy covers the end of the gap: at most one packet's duration.
fn opus_split(gap: &mut [i16], recovers: bool) -> (&mut [i16], &mut [i16]) {
    let last = if recovers { gap.len().min(OPUS_MAX) } else { 0 };
    gap.split_at_mut(gap.len() - last)
}
