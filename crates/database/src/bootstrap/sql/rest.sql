-- Options of the REST API live in the database where a project's migrations put them:
-- `alter role authenticator set pgrst.db_aggregates_enabled = 'true'`. Since Postgres 15 only a superuser, or who was
-- granted it, may store a setting that no loaded library defines; before, only a superuser.
do $rest$
declare
  owner constant name := current_setting('longhouse.owner');
  superuser constant boolean := current_setting('longhouse.superuser')::boolean;
  option text;
begin
  if not superuser or owner = current_user or current_setting('server_version_num')::integer < 150000 then
    return;
  end if;
  foreach option in array array[
    'client_error_verbosity', 'db_aggregates_enabled', 'db_anon_role', 'db_extra_search_path',
    'db_hoisted_tx_settings', 'db_max_rows', 'db_plan_enabled', 'db_pre_config', 'db_pre_request',
    'db_prepared_statements', 'db_root_spec', 'db_schemas', 'db_tx_end', 'jwt_aud', 'jwt_cache_max_entries',
    'jwt_role_claim_key', 'jwt_secret', 'jwt_secret_is_base64', 'openapi_mode', 'openapi_security_active',
    'openapi_server_proxy_uri', 'server_cors_allowed_origins', 'server_timing_enabled', 'server_trace_header',
    'url_use_legacy_target_names'
  ] loop
    execute format('grant set on parameter pgrst.%I to %I', option, owner);
  end loop;
end
$rest$;
