"""The vendors' own SDKs, unmodified, against the emulated vendors' sockets."""

import asyncio
import base64
import os

import httpx
from cartesia import AsyncCartesia
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from google import genai
from google.genai import types
from openai import AsyncOpenAI

KEY = os.environ["LONGHOUSE_TEST_KEY"]
BASE = os.environ["LONGHOUSE_TEST_MODELS_URL"]
SOCKETS = BASE.replace("http://", "ws://")
VOICE = "694f9389-aac1-45b6-b726-9d9369183238"


async def spoken(text: str, rate: int) -> bytes:
    """Speech that the emulators understand: 16-bit samples, and a second of silence."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{BASE}/deepgram/v1/speak",
            params={"model": "aura-2-thalia-en", "encoding": "linear16", "container": "none", "sample_rate": rate},
            headers={"authorization": f"Token {KEY}"},
            json={"text": text},
        )
        answer.raise_for_status()
        return answer.content + bytes(2 * rate)


def pieces(audio: bytes, size: int):
    return [audio[at : at + size] for at in range(0, len(audio), size)]


async def openai_realtime():
    client = AsyncOpenAI(api_key=KEY, base_url=f"{BASE}/openai/v1", websocket_base_url=f"{SOCKETS}/openai/v1")
    async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
        pcm = {"type": "audio/pcm", "rate": 24000}
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "Be brief.",
                "audio": {
                    "input": {"format": pcm, "transcription": {"model": "gpt-transcribe"}},
                    "output": {"format": pcm, "voice": "marin"},
                },
            }
        )
        for piece in pieces(await spoken("Are you there", 24000), 4800):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        audio, heard, item, done = b"", None, None, False
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.output_audio.delta":
                audio, item = audio + base64.b64decode(event.delta), event.item_id
            elif event.type == "conversation.item.input_audio_transcription.completed":
                heard = event.transcript
            elif event.type == "response.done":
                assert event.response.status == "completed", event
                done = True
            if heard and done:
                break
        assert heard == "Are you there", heard
        assert len(audio) > 12000, len(audio)
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=200)
        async for event in connection:
            assert event.type != "error", event
            if event.type == "conversation.item.truncated":
                assert event.audio_end_ms == 200
                break


async def gemini_live():
    client = genai.Client(api_key=KEY, http_options={"base_url": os.environ["LONGHOUSE_TEST_GEMINI_URL"]})
    weather = types.FunctionDeclaration(
        name="weather", description="Tells the weather.", parameters_json_schema={"type": "object", "properties": {}}
    )
    config = types.LiveConnectConfig(
        response_modalities=["AUDIO"],
        system_instruction="Be brief.",
        tools=[types.Tool(function_declarations=[weather])],
        input_audio_transcription=types.AudioTranscriptionConfig(),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        session_resumption=types.SessionResumptionConfig(),
    )
    async with client.aio.live.connect(model="gemini-live-2.5-flash", config=config) as session:
        for piece in pieces(await spoken("What is the weather", 16000), 3200):
            await session.send_realtime_input(audio=types.Blob(data=piece, mime_type="audio/pcm;rate=16000"))
        heard, told, audio, called = "", "", b"", False
        while not told:
            async for message in session.receive():
                if message.tool_call:
                    called = True
                    responses = [
                        types.FunctionResponse(id=call.id, name=call.name, response={"output": "sunny"})
                        for call in message.tool_call.function_calls
                    ]
                    await session.send_tool_response(function_responses=responses)
                content = message.server_content
                if content and content.input_transcription:
                    heard += content.input_transcription.text
                if content and content.output_transcription:
                    told += content.output_transcription.text
                if message.data:
                    audio += message.data
        assert heard == "What is the weather", heard
        assert called
        assert told == "I looked: sunny", told
        assert len(audio) > 24000, len(audio)


async def deepgram_flux():
    environment = DeepgramClientEnvironment(
        base=f"{BASE}/deepgram", production=f"{SOCKETS}/deepgram", agent=SOCKETS, agent_rest=BASE
    )
    client = AsyncDeepgramClient(api_key=KEY, environment=environment)
    async with client.listen.v2.connect(
        model="flux-general-en", encoding="linear16", sample_rate=16000, eager_eot_threshold=0.5
    ) as connection:
        for piece in pieces(await spoken("One two three", 16000), 2560):
            await connection.send_media(piece)
        events = []
        while True:
            message = await connection.recv()
            if message.type == "TurnInfo":
                events.append(message.event)
                if message.event == "EndOfTurn":
                    break
        assert message.transcript == "One two three", message
        assert events[0] == "StartOfTurn" and "EagerEndOfTurn" in events, events
        await connection.send_close_stream()


async def cartesia_contexts():
    client = AsyncCartesia(api_key=KEY, base_url=f"{BASE}/cartesia", websocket_base_url=f"{SOCKETS}/cartesia")
    async with client.tts.websocket_connect() as connection:
        await connection.send(
            {
                "model_id": "sonic-3",
                "transcript": "Good morning to you.",
                "voice": {"mode": "id", "id": VOICE},
                "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 16000},
                "context_id": "one",
                "continue": False,
                "add_timestamps": True,
            }
        )
        audio, words = b"", []
        async for event in connection:
            assert event.type != "error", event
            if event.type == "chunk":
                audio += event.audio
            elif event.type == "timestamps":
                words += event.word_timestamps.words
            elif event.type == "done":
                break
        assert words == ["Good", "morning", "to", "you."], words
        assert len(audio) > 16000, len(audio)


async def main():
    for check in (openai_realtime, gemini_live, deepgram_flux, cartesia_contexts):
        await asyncio.wait_for(check(), 30)
        print(f"{check.__name__}: fine", flush=True)


asyncio.run(main())
