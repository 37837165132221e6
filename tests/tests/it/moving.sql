-- What a Supabase project's dump of data looks like: `supabase db dump --data-only`, tables of `auth` first.
-- Hashes are pgcrypto's, as sign-ups and seeds leave them; columns that were never used are empty or null, both occur.

SET session_replication_role = replica;

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

COPY "auth"."audit_log_entries" ("instance_id", "id", "payload", "created_at", "ip_address") FROM stdin;
00000000-0000-0000-0000-000000000000	f1000000-0000-4000-8000-000000000001	{"action":"login","actor_id":"a0000000-0000-4000-8000-00000000000a","actor_username":"ada@example.com","actor_via_sso":false,"log_type":"account","traits":{"provider":"email"}}	2025-03-01 09:00:00.123456+00	
\.

COPY "auth"."flow_state" ("id", "user_id", "auth_code", "code_challenge_method", "code_challenge", "provider_type", "provider_access_token", "provider_refresh_token", "created_at", "updated_at", "authentication_method", "auth_code_issued_at") FROM stdin;
f2000000-0000-4000-8000-000000000001	\N	f2000000-0000-4000-8000-00000000000c	s256	E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM	google			2025-03-01 08:59:00+00	2025-03-01 08:59:00+00	oauth	\N
\.

COPY "auth"."users" ("instance_id", "id", "aud", "role", "email", "encrypted_password", "email_confirmed_at", "invited_at", "confirmation_token", "confirmation_sent_at", "recovery_token", "recovery_sent_at", "email_change_token_new", "email_change", "email_change_sent_at", "last_sign_in_at", "raw_app_meta_data", "raw_user_meta_data", "is_super_admin", "created_at", "updated_at", "phone", "phone_confirmed_at", "phone_change", "phone_change_token", "phone_change_sent_at", "email_change_token_current", "email_change_confirm_status", "banned_until", "reauthentication_token", "reauthentication_sent_at", "is_sso_user", "deleted_at", "is_anonymous") FROM stdin;
00000000-0000-0000-0000-000000000000	a0000000-0000-4000-8000-00000000000a	authenticated	authenticated	ada@example.com	{{ada}}	2025-01-02 03:04:05.678901+00	\N		\N		\N			\N	2025-03-01 09:00:00+00	{"provider": "email", "providers": ["email"]}	{"sub": "a0000000-0000-4000-8000-00000000000a", "name": "Ada \\"Countess\\" Lovelace", "email": "ada@example.com", "email_verified": true, "phone_verified": false}	\N	2025-01-02 03:04:05.678901+00	2025-03-01 09:00:00+00	\N	\N			\N		0	\N		\N	f	\N	f
00000000-0000-0000-0000-000000000000	b0000000-0000-4000-8000-00000000000b	authenticated	authenticated	bob@example.com	{{bob}}	2024-01-02 03:04:05+00	\N	\N	\N	\N	\N	\N	\N	\N	\N	{"provider": "email", "providers": ["email", "google"]}	{}	f	2024-01-02 03:04:05+00	2024-01-02 03:04:05+00	15550100	2024-01-02 03:04:05+00	\N	\N	\N	\N	\N	\N	\N	\N	f	\N	f
00000000-0000-0000-0000-000000000000	c0000000-0000-4000-8000-00000000000c	authenticated	authenticated	cleo@example.com		2025-02-02 02:02:02+00	\N		\N		\N			\N	\N	{"provider": "google", "providers": ["google"]}	{"full_name": "Cleo"}	\N	2025-02-02 02:02:02+00	2025-02-02 02:02:02+00	\N	\N			\N		0	\N		\N	f	\N	f
\N	d0000000-0000-4000-8000-00000000000d	authenticated	authenticated	\N	\N	\N	\N		\N		\N			\N	\N	{}	{}	\N	2025-02-03 02:02:02+00	2025-02-03 02:02:02+00	\N	\N			\N		0	\N		\N	f	\N	t
00000000-0000-0000-0000-000000000000	e0000000-0000-4000-8000-00000000000e	authenticated	authenticated	eve@example.com	{{bob}}	2025-02-02 02:02:02+00	\N		\N		\N			\N	\N	{"provider": "email", "providers": ["email"]}	{}	\N	2025-02-02 02:02:02+00	2025-02-02 02:02:02+00	\N	\N			\N		0	2999-01-01 00:00:00+00		\N	f	\N	f
\.

COPY "auth"."identities" ("provider_id", "user_id", "identity_data", "provider", "last_sign_in_at", "created_at", "updated_at", "id") FROM stdin;
a0000000-0000-4000-8000-00000000000a	a0000000-0000-4000-8000-00000000000a	{"sub": "a0000000-0000-4000-8000-00000000000a", "email": "ada@example.com", "email_verified": true, "phone_verified": false}	email	2025-01-02 03:04:05.6+00	2025-01-02 03:04:05.6+00	2025-01-02 03:04:05.6+00	1a000000-0000-4000-8000-00000000000a
b0000000-0000-4000-8000-00000000000b	b0000000-0000-4000-8000-00000000000b	{"sub": "b0000000-0000-4000-8000-00000000000b", "email": "bob@example.com"}	email	\N	2024-01-02 03:04:05+00	2024-01-02 03:04:05+00	1b000000-0000-4000-8000-00000000000b
110000000000000000001	b0000000-0000-4000-8000-00000000000b	{"iss": "https://accounts.google.com", "sub": "110000000000000000001", "email": "bob@example.com", "email_verified": true}	google	2025-01-02 03:04:05+00	2024-01-02 03:04:05+00	2024-01-02 03:04:05+00	1b000000-0000-4000-8000-00000000001b
110000000000000000002	c0000000-0000-4000-8000-00000000000c	{"iss": "https://accounts.google.com", "sub": "110000000000000000002", "email": "cleo@example.com", "full_name": "Cleo"}	google	2025-02-02 02:02:02+00	2025-02-02 02:02:02+00	2025-02-02 02:02:02+00	1c000000-0000-4000-8000-00000000000c
\.

COPY "auth"."sessions" ("id", "user_id", "created_at", "updated_at", "factor_id", "aal", "not_after", "refreshed_at", "user_agent", "ip", "tag") FROM stdin;
5a000000-0000-4000-8000-00000000000a	a0000000-0000-4000-8000-00000000000a	2025-03-01 09:00:00+00	2025-03-01 10:00:00+00	\N	aal1	\N	2025-03-01 10:00:00	Mozilla/5.0	203.0.113.7	\N
5b000000-0000-4000-8000-00000000000b	b0000000-0000-4000-8000-00000000000b	2025-03-01 09:00:00+00	2025-03-01 10:00:00+00	\N	\N	\N	\N	\N	\N	\N
\.

COPY "auth"."mfa_amr_claims" ("session_id", "created_at", "updated_at", "authentication_method", "id") FROM stdin;
5a000000-0000-4000-8000-00000000000a	2025-03-01 09:00:00+00	2025-03-01 09:00:00+00	password	a1000000-0000-4000-8000-00000000000a
\.

COPY "auth"."refresh_tokens" ("instance_id", "id", "token", "user_id", "revoked", "created_at", "updated_at", "parent", "session_id") FROM stdin;
00000000-0000-0000-0000-000000000000	1041	usedadatoken	a0000000-0000-4000-8000-00000000000a	t	2025-03-01 09:00:00+00	2025-03-01 10:00:00+00	\N	5a000000-0000-4000-8000-00000000000a
00000000-0000-0000-0000-000000000000	1042	liveadatoken	a0000000-0000-4000-8000-00000000000a	f	2025-03-01 10:00:00+00	2025-03-01 10:00:00+00	usedadatoken	5a000000-0000-4000-8000-00000000000a
00000000-0000-0000-0000-000000000000	1043	Ab_3dEf6hIj9lMnOpQrStU	b0000000-0000-4000-8000-00000000000b	f	2025-03-01 09:00:00+00	2025-03-01 09:00:00+00	\N	5b000000-0000-4000-8000-00000000000b
\.

COPY "auth"."one_time_tokens" ("id", "user_id", "token_type", "token_hash", "relates_to", "created_at", "updated_at") FROM stdin;
7c000000-0000-4000-8000-00000000000c	c0000000-0000-4000-8000-00000000000c	recovery_token	9e107d9d372bb6826bd81d3542a419d6e4d909c290d0fb1ca068ffad	cleo@example.com	2025-03-01 09:00:00	2025-03-01 09:00:00
\.

COPY "public"."profiles" ("id", "name") FROM stdin;
a0000000-0000-4000-8000-00000000000a	Ada, as she calls herself
b0000000-0000-4000-8000-00000000000b	Bob
\.

SELECT pg_catalog.setval('"auth"."refresh_tokens_id_seq"', 1043, true);

RESET ALL;
