"""/realtime/v1 through the unmodified supabase-py: broadcast, presence, changes under row-level security, refusals."""

import asyncio
import os

import supabase

URL, KEY = os.environ["LONGHOUSE_TEST_API_URL"], os.environ["LONGHOUSE_TEST_KEY"]
PATIENCE = 15


async def client(token):
    """Signed in with a token."""
    made = await supabase.acreate_client(URL, KEY)
    made.postgrest.auth(token)
    await made.realtime.set_auth(token)
    return made


class Heard:
    """What a channel hears, to be waited for."""

    def __init__(self):
        self.queue = asyncio.Queue()

    def __call__(self, *message):
        self.queue.put_nowait(message[0] if len(message) == 1 else message)

    async def next(self):
        return await asyncio.wait_for(self.queue.get(), PATIENCE)

    async def nothing(self, seconds=1):
        try:
            message = await asyncio.wait_for(self.queue.get(), seconds)
        except asyncio.TimeoutError:
            return
        raise AssertionError(f"heard {message}")


async def subscribed(channel):
    """Subscribes and waits for the answer."""
    answer = asyncio.get_running_loop().create_future()

    def told(status, error):
        if not answer.done():
            answer.set_result((status, error))

    await channel.subscribe(told)
    return await asyncio.wait_for(answer, PATIENCE)


async def main():
    ada, bob = await client(os.environ["LONGHOUSE_TEST_ADA"]), await client(os.environ["LONGHOUSE_TEST_BOB"])
    private = {"config": {"private": True, "broadcast": {"self": False, "ack": False}, "presence": {"key": "ada", "enabled": True}}}
    of_ada, of_bob = ada.channel("board-plans", private), bob.channel("board-plans", private)
    said, cards, others_cards, ready = Heard(), Heard(), Heard(), Heard()
    of_bob.on_broadcast("said", said)
    of_bob.on_postgres_changes("INSERT", cards, table="cards", schema="public", filter="board=eq.plans")
    of_ada.on_postgres_changes("INSERT", others_cards, table="cards", schema="public", filter="board=eq.plans")
    synced = Heard()
    of_bob.on_presence_sync(lambda: synced(of_bob.presence_state()))
    for channel in (of_ada, of_bob):
        channel.on_system(ready)
        status, error = await subscribed(channel)
        assert status.value == "SUBSCRIBED", (status, error)
    for _ in range(2):
        system = await ready.next()
        assert system.message == "Subscribed to PostgreSQL", system

    await of_ada.track({"mood": "curious"})
    while True:
        state = await synced.next()
        if "ada" in state:
            break
    assert state["ada"][0]["mood"] == "curious", state

    await of_ada.send_broadcast("said", {"text": "grüß dich"})
    message = await said.next()
    assert message["payload"] == {"text": "grüß dich"}, message

    await ada.table("cards").insert({"board": "plans", "text": "a secret plan"}).execute()
    await bob.table("cards").insert({"board": "plans", "text": "his own"}).execute()
    change = await cards.next()
    record = change["data"]["record"]
    assert (record["text"], record["board"]) == ("his own", "plans"), change
    change = await others_cards.next()
    assert change["data"]["record"]["text"] == "a secret plan", change
    await cards.nothing()

    refused = bob.channel("elsewhere", {"config": {"private": True}})
    status, error = await subscribed(refused)
    assert status.value == "CHANNEL_ERROR", (status, error)
    assert "You do not have permissions to read from this Channel topic: elsewhere" in str(error), error
    for one in (ada, bob):
        await one.remove_all_channels()


asyncio.run(main())
