//! A strict `OpenAI` Realtime (GA) server over WebSocket.
