use crate::OpusError;
use opusic_sys as sys;
use std::ptr::NonNull;

/// A mono decoder; it mixes the two channels of a stereo packet into one.
#[derive(Debug)]
pub struct Decoder {
    state: NonNull<sys::OpusDecoder>,
    rate_hz: u32,
}

// SAFETY: the state is plain memory that this value owns alone; libopus keeps nothing per thread.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder to 8000, 12000, 16000, 24000 or 48000 Hz.
    ///
    /// # Errors
    /// [`OpusError::Argument`] for any other rate, [`OpusError::Library`] without memory.
    pub fn new(rate_hz: u32) -> Result<Self, OpusError> {
        let mut error = sys::OPUS_OK;
        // SAFETY: the arguments are numbers, and a place for one that outlives the call.
        let state = unsafe { sys::opus_decoder_create(rate_hz as i32, 1, &raw mut error) };
        match NonNull::new(state) {
            Some(state) => Ok(Self { state, rate_hz }),
            None => Err(OpusError::count(error).err().unwrap_or(OpusError::Argument)),
        }
    }

    /// How many samples [`Decoder::decode`] would give for `packet`.
    ///
    /// # Errors
    /// [`OpusError::Packet`] where the head of the packet says nonsense.
    pub fn samples(&self, packet: &[u8]) -> Result<usize, OpusError> {
        if packet.is_empty() {
            return Err(OpusError::Packet);
        }
        let length = i32::try_from(packet.len()).map_err(|_| OpusError::Packet)?;
        // SAFETY: the pointer is good for `length` octets, and there is at least one.
        let result = unsafe { sys::opus_packet_get_nb_samples(packet.as_ptr(), length, self.rate_hz as i32) };
        OpusError::count(result)
    }

    /// Decode a packet to the start of `pcm`; returns how many samples.
    ///
    /// # Errors
    /// [`OpusError::Packet`] for what is no packet, also an empty one; [`OpusError::Room`] where `pcm` is too short.
    /// The decoder stays usable.
    pub fn decode(&mut self, packet: &[u8], pcm: &mut [i16]) -> Result<usize, OpusError> {
        if packet.is_empty() {
            return Err(OpusError::Packet); // libopus would take it for a loss
        }
        self.run(Some(packet), pcm, false)
    }

    /// Fill `pcm` in place of a lost packet; its length is a multiple of 2.5 ms and at most 120 ms.
    ///
    /// # Errors
    /// [`OpusError::Argument`] for another length.
    pub fn conceal(&mut self, pcm: &mut [i16]) -> Result<(), OpusError> {
        self.run(None, pcm, false).map(drop)
    }

    /// Fill `pcm` in place of the packet right before `following`: from the copy that `following` carries of it, and
    /// where it carries none as [`Decoder::conceal`] does. Same lengths.
    ///
    /// # Errors
    /// [`OpusError::Packet`] for what is no packet, [`OpusError::Argument`] for another length.
    pub fn recover(&mut self, following: &[u8], pcm: &mut [i16]) -> Result<(), OpusError> {
        if following.is_empty() {
            return Err(OpusError::Packet);
        }
        self.run(Some(following), pcm, true).map(drop)
    }

    fn run(&mut self, packet: Option<&[u8]>, pcm: &mut [i16], forward: bool) -> Result<usize, OpusError> {
        // Longer than any packet can be makes no difference, so the numbers below fit.
        let room = pcm.len().min(self.rate_hz as usize * 120 / 1000) as i32;
        let (data, length) = match packet {
            Some(packet) => (
                packet.as_ptr(),
                i32::try_from(packet.len()).map_err(|_| OpusError::Packet)?,
            ),
            None => (std::ptr::null(), 0),
        };
        // SAFETY: the state is ours and alive; `data` is good for `length` octets or null with length 0, which means
        // a loss; `pcm` is good for `room` samples of one channel.
        let result = unsafe {
            sys::opus_decode(
                self.state.as_ptr(),
                data,
                length,
                pcm.as_mut_ptr(),
                room,
                i32::from(forward),
            )
        };
        OpusError::count(result)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: created by `opus_decoder_create`, and destroyed nowhere else.
        unsafe { sys::opus_decoder_destroy(self.state.as_ptr()) }
    }
}
