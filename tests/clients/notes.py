"""/rest/v1 through the unmodified supabase-py: what the notes' page does, from a script."""

import os

import supabase
from postgrest.exceptions import APIError

URL, KEY = os.environ["LONGHOUSE_TEST_API_URL"], os.environ["LONGHOUSE_TEST_KEY"]


def client(token=None):
    """Signed in with a token, or nobody."""
    made = supabase.create_client(URL, KEY)
    if token:
        made.postgrest.auth(token)
    return made


def refusal(request):
    """The error that a request ends in."""
    try:
        answer = request.execute()
    except APIError as error:
        return error
    raise AssertionError(f"not refused: {answer.data}")


anonymous = client()
ada = client(os.environ["LONGHOUSE_TEST_ADA"])

seen = anonymous.table("notes").select("title, authors(name), tags(name)", count="exact").order("title").execute()
assert seen.count == 2, seen
assert seen.data == [
    {"title": "A letter to Ada", "authors": {"name": "Bob"}, "tags": [{"name": "engines"}, {"name": "letters"}]},
    {"title": "The mill", "authors": {"name": "Ada"}, "tags": [{"name": "engines"}]},
], seen.data
count = ada.table("notes").select("*", count="exact", head=True).execute()
assert (count.count, count.data) == (3, []), count

written = ada.table("notes").insert([{"slug": "a", "title": "One, two"}, {"slug": "b", "title": "「三」"}]).execute()
assert [note["title"] for note in written.data] == ["One, two", "「三」"], written.data
saved = ada.table("notes").upsert({"slug": "b", "title": "Three"}, on_conflict="slug").execute()
assert [(note["slug"], note["title"]) for note in saved.data] == [("b", "Three")], saved.data
changed = ada.table("notes").update({"published": True}).in_("slug", ["a", "b", "letter"]).execute()
assert sorted(note["slug"] for note in changed.data) == ["a", "b"], changed.data
single = anonymous.table("notes").select("title").eq("slug", "a").single().execute()
assert single.data == {"title": "One, two"}, single.data
missing = anonymous.table("notes").select("title").eq("slug", "draft").maybe_single().execute()
assert missing is None, missing

found = ada.rpc("search_notes", {"term": "t"}).select("title").order("title").limit(2).execute()
assert [note["title"] for note in found.data] == ["A letter to Ada", "A secret draft"], found.data
assert ada.rpc("publish_all", {}).execute().data == 1
deleted = ada.table("notes").delete().in_("slug", ["a", "letter"]).execute()
assert [note["slug"] for note in deleted.data] == ["a"], deleted.data

bob = "00000000-0000-4000-8000-00000000000b"
for person in (ada, anonymous):
    error = refusal(person.table("notes").insert({"slug": "c", "title": "Forged", "author_id": bob}))
    assert error.code == "42501", error
    assert error.message == 'new row violates row-level security policy for table "notes"', error
error = refusal(ada.table("notes").select("nothing"))
assert error.code == "42703", error
error = refusal(client("not.a.token").table("notes").select("*"))
assert error.code == "PGRST301", error
