"""/auth/v1 through the unmodified supabase-py: an account's life, and what a server does with its secret key."""

import os

import supabase
from supabase_auth.errors import AuthApiError, AuthSessionMissingError, AuthWeakPasswordError

URL = os.environ["LONGHOUSE_TEST_API_URL"]
KEY, SECRET = os.environ["LONGHOUSE_TEST_KEY"], os.environ["LONGHOUSE_TEST_SERVICE_KEY"]
ADA = {"email": "ada@example.com", "password": "analytical engine"}


def refusal(action, *arguments):
    """The error that a call ends in."""
    try:
        answer = action(*arguments)
    except (AuthApiError, AuthSessionMissingError) as error:
        return error
    raise AssertionError(f"not refused: {answer}")


ada = supabase.create_client(URL, KEY)
try:
    ada.auth.sign_up({**ADA, "password": "short"})
    raise AssertionError("a short password passed")
except AuthWeakPasswordError as error:
    assert error.reasons == ["length"], error.reasons
signed_up = ada.auth.sign_up({**ADA, "options": {"data": {"name": "Ada"}}})
assert signed_up.user.user_metadata["name"] == "Ada", signed_up.user
assert signed_up.session.user.id == signed_up.user.id, signed_up
assert refusal(ada.auth.sign_up, ADA).code == "user_already_exists"

signed_in = ada.auth.sign_in_with_password(ADA)
assert signed_in.user.id == signed_up.user.id, signed_in.user
found = ada.auth.get_user().user
assert (found.email, found.role, found.aud) == (ADA["email"], "authenticated", "authenticated"), found
assert [identity.provider for identity in found.identities] == ["email"], found.identities
claims = ada.auth.get_claims()["claims"]
assert (claims["sub"], claims["aal"]) == (found.id, "aal1"), claims
refreshed = ada.auth.refresh_session().session
assert refreshed.refresh_token != signed_in.session.refresh_token

# The diary is hers: every request goes out as she.
written = ada.table("entries").insert({"text": "The mill turns."}).execute()
assert written.data[0]["owner"] == found.id, written.data

changed = ada.auth.update_user({"password": "difference engine", "data": {"name": "Countess"}}).user
assert changed.user_metadata["name"] == "Countess", changed
error = refusal(supabase.create_client(URL, KEY).auth.sign_in_with_password, ADA)
assert (error.status, error.code) == (400, "invalid_credentials"), error
ADA["password"] = "difference engine"

elsewhere = supabase.create_client(URL, KEY)
elsewhere.auth.sign_in_with_password(ADA)
elsewhere.auth.sign_out({"scope": "others"})
refusal(ada.auth.refresh_session)
assert elsewhere.auth.get_user().user.id == found.id
kept = elsewhere.auth.get_session().refresh_token
elsewhere.auth.sign_out()
assert elsewhere.auth.get_session() is None and elsewhere.auth.get_user() is None
assert refusal(elsewhere.auth.refresh_session, kept).code == "refresh_token_not_found"

# A server with the secret key.
admin = supabase.create_client(URL, SECRET).auth.admin
chosen = "10000000-0000-4000-8000-00000000000b"
bob = {"email": "bob@example.com", "password": "tea at five"}
made = admin.create_user(
    {**bob, "id": chosen, "email_confirm": True, "app_metadata": {"plan": "team"}, "user_metadata": {"name": "Bob"}}
).user
assert (made.id, made.app_metadata["plan"], made.user_metadata["name"]) == (chosen, "team", "Bob"), made
assert made.email_confirmed_at is not None, made
assert supabase.create_client(URL, KEY).auth.sign_in_with_password(bob).user.id == chosen
assert refusal(admin.create_user, {**bob, "email": "b@example.com", "id": chosen}).status == 422
assert refusal(admin.create_user, {**bob, "email_confirm": True}).code == "email_exists"
assert {user.email for user in admin.list_users()} == {"ada@example.com", "bob@example.com"}
assert admin.update_user_by_id(chosen, {"ban_duration": "24h"}).user.id == chosen
assert refusal(supabase.create_client(URL, KEY).auth.sign_in_with_password, bob).code == "user_banned"
link = admin.generate_link({"type": "magiclink", "email": "ada@example.com"}).properties
guest = supabase.create_client(URL, KEY)
arrived = guest.auth.verify_otp({"type": "magiclink", "token_hash": link.hashed_token})
assert arrived.user.id == found.id, arrived
admin.delete_user(chosen)
assert refusal(admin.get_user_by_id, chosen).code == "user_not_found"
error = refusal(guest.auth.admin.list_users)
assert (error.status, error.code) == (403, "not_admin"), error
