# Completion for bash, made from the table in src/config.
# bash cuts words at =, so a value is completed as a word of its own.

_secure_socket() {
    local word=${COMP_WORDS[COMP_CWORD]} option=
    COMPREPLY=()
    if [[ $word == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-1]} word=
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case ${option#--} in
        config) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        domain) mapfile -t COMPREPLY < <(compgen -W 'AF_UNIX AF_LOCAL AF_INET AF_INET6' -- "$word") ;;
        protocol) mapfile -t COMPREPLY < <(compgen -W 'SOCK_STREAM SOCK_SEQPACKET' -- "$word") ;;
        socket_path) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        expose) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        authorised_peer_exe) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        process_proof) mapfile -t COMPREPLY < <(compgen -W 'auto yes no' -- "$word") ;;
        session_ends_with_peer) mapfile -t COMPREPLY < <(compgen -W 'auto yes no' -- "$word") ;;
        process_check_overload) mapfile -t COMPREPLY < <(compgen -W 'wait deny' -- "$word") ;;
        service) mapfile -t COMPREPLY < <(compgen -W 'echo relay broker' -- "$word") ;;
        upstream_identity) mapfile -t COMPREPLY < <(compgen -W 'own peer' -- "$word") ;;
        proxy_protocol) mapfile -t COMPREPLY < <(compgen -W 'off v2' -- "$word") ;;
        overload) mapfile -t COMPREPLY < <(compgen -W 'wait refuse' -- "$word") ;;
        penalty_for) mapfile -t COMPREPLY < <(compgen -W 'denial flood slow_sender slow_reader protocol vanished' -- "$word") ;;
        log_file) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        log_sync) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        log_format) mapfile -t COMPREPLY < <(compgen -W 'text json rfc5424' -- "$word") ;;
        log_overflow) mapfile -t COMPREPLY < <(compgen -W 'drop block' -- "$word") ;;
        trail_file) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        trail_sync) mapfile -t COMPREPLY < <(compgen -W 'no batch each' -- "$word") ;;
        metrics_socket) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        sandbox) mapfile -t COMPREPLY < <(compgen -W 'enforce best_effort off' -- "$word") ;;
        seccomp) mapfile -t COMPREPLY < <(compgen -W 'kill trap log off' -- "$word") ;;
        '') compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W 'serve check explain help version config= domain= protocol= socket_path= socket_permissions= socket_group= address= port= expose= backlog= authorised_peer_username= authorised_peer_uid= authorised_peer_groupname= authorised_peer_gid= authorised_peer_pid= authorised_peer_process_name= authorised_peer_cli_args= authorised_peer_exe= authorised_peer_exe_sha256= authorised_peer_label= allow= deny= process_proof= proof_timeout= session_ends_with_peer= process_check_interval= process_check_parallel= process_check_queue= process_check_overload= process_check_timeout= process_hash_max_size= process_hash_cache= service= upstream= upstream_identity= proxy_protocol= relay_descriptors= max_frame_size= broker_pending= broker_pending_per_uid= broker_subscriptions= broker_requests= request_timeout= permit= max_connections= threads= overload= first_byte_timeout= idle_timeout= connect_timeout= write_timeout= half_close_timeout= max_lifetime= stop_timeout= max_connections_per_uid= connection_rate_per_uid= limit= denials_before_penalty= penalty= penalty_max= penalty_for= peers_remembered= verbosity= verbosity_for= log_target= log_file= log_max_size= log_max_age= log_keep= log_keep_bytes= log_sync= mq_name= log_remote= log_format= log_queue= log_overflow= log_rate= trail_file= trail_sync= trail_max_size= trail_keep= metrics_socket= metrics_allow= metrics_deny= metrics_permissions= metrics_group= run_as_user= run_as_group= sandbox= seccomp=' -- "$word") ;;
    esac
}
complete -F _secure_socket secure_socket

_secure_socketctl() {
    local word=${COMP_WORDS[COMP_CWORD]} option=
    COMPREPLY=()
    if [[ $word == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-1]} word=
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == = ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case ${option#--} in
        socket_path) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        protocol) mapfile -t COMPREPLY < <(compgen -W 'SOCK_STREAM SOCK_SEQPACKET' -- "$word") ;;
        process_proof) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        framing) mapfile -t COMPREPLY < <(compgen -W 'lines length' -- "$word") ;;
        json) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        drop_oldest) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        confirm) mapfile -t COMPREPLY < <(compgen -W 'yes no' -- "$word") ;;
        '') compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W 'connect publish subscribe request respond mqcat verify-trail help version socket_path= protocol= server= process_proof= connect_timeout= framing= json= count= drop_oldest= confirm= request_timeout= max_frame_size= respond_parallel= respond_timeout= mq_name= head=' -- "$word") ;;
    esac
}
complete -F _secure_socketctl secure_socketctl
