# Completion for bash, made from the table in src/config.

# Offers those words that go on as $1, the argument so far; each has $2 before it.
# readline cuts words at some characters: what stands before the last of them is
# there already, and no part of an answer.
_secure_socket_offer() {
    local argument=$1 head=$2 word cut=
    shift 2
    local breaks=${COMP_WORDBREAKS//[^=:@]/}
    if [[ -n $breaks && $argument == *[$breaks]* ]]; then
        cut=${argument%"${argument##*[$breaks]}"}
    fi
    for word; do
        word=$head$word
        [[ $word == "$argument"* ]] && COMPREPLY+=("${word#"$cut"}")
    done
}

_secure_socket() {
    local line=${COMP_LINE:0:COMP_POINT} names words=()
    local argument=${line##*[[:space:]]}
    COMPREPLY=()
    if [[ $argument == *=* ]]; then
        local option=${argument%%=*} value=${argument#*=}
        local head=$option=
        case ${option#--} in
            config|socket_path|log_file|trail_file|metrics_socket)
                compopt -o filenames 2>/dev/null
                mapfile -t words < <(compgen -f -- "$value") ;;
            domain)
                words=(AF_UNIX AF_LOCAL AF_INET AF_INET6) ;;
            protocol)
                words=(SOCK_STREAM SOCK_SEQPACKET) ;;
            socket_group|metrics_group|run_as_group)
                mapfile -t words < <(compgen -g) ;;
            expose|log_sync)
                words=(yes no) ;;
            authorised_peer_username)
                head+=${value%"${value##*,}"} value=${value##*,}
                mapfile -t words < <(compgen -u) ;;
            authorised_peer_groupname)
                head+=${value%"${value##*,}"} value=${value##*,}
                mapfile -t words < <(compgen -g) ;;
            authorised_peer_exe)
                head+=${value%"${value##*,}"} value=${value##*,}
                compopt -o filenames 2>/dev/null
                mapfile -t words < <(compgen -f -- "$value") ;;
            allow|deny|metrics_allow|metrics_deny)
                head+=${value%"${value##*,}"} value=${value##*,}
                words=(uid: user: gid: group: pid: exe: sha256: label: name: args: address: any) ;;
            process_proof|session_ends_with_peer)
                words=(auto yes no) ;;
            process_check_overload)
                words=(wait deny) ;;
            service)
                words=(echo relay broker) ;;
            upstream_identity)
                words=(own peer) ;;
            proxy_protocol)
                words=(off v2) ;;
            overload)
                words=(wait refuse) ;;
            penalty_for)
                head+=${value%"${value##*,}"} value=${value##*,}
                words=(denial flood slow_sender slow_reader protocol vanished) ;;
            log_format)
                words=(text json rfc5424) ;;
            log_overflow)
                words=(drop block) ;;
            trail_sync)
                words=(no batch each) ;;
            run_as_user)
                mapfile -t words < <(compgen -u) ;;
            sandbox)
                words=(enforce best_effort off) ;;
            seccomp)
                words=(kill trap log off) ;;
        esac
        _secure_socket_offer "$argument" "$head" "${words[@]}"
        return
    fi
    names='config= domain= protocol= socket_path= socket_permissions= socket_group= address= port= expose= backlog= authorised_peer_username= authorised_peer_uid= authorised_peer_groupname= authorised_peer_gid= authorised_peer_pid= authorised_peer_process_name= authorised_peer_cli_args= authorised_peer_exe= authorised_peer_exe_sha256= authorised_peer_label= allow= deny= process_proof= proof_timeout= session_ends_with_peer= process_check_interval= process_check_parallel= process_check_queue= process_check_overload= process_check_timeout= process_hash_max_size= process_hash_cache= service= upstream= upstream_identity= proxy_protocol= relay_descriptors= max_frame_size= broker_pending= broker_pending_per_uid= broker_subscriptions= broker_requests= request_timeout= permit= max_connections= threads= overload= first_byte_timeout= idle_timeout= connect_timeout= write_timeout= half_close_timeout= max_lifetime= stop_timeout= max_connections_per_uid= connection_rate_per_uid= limit= denials_before_penalty= penalty= penalty_max= penalty_for= penalty_rate= peers_remembered= verbosity= verbosity_for= log_target= log_file= log_max_size= log_max_age= log_keep= log_keep_bytes= log_sync= mq_name= log_remote= log_format= log_queue= log_overflow= log_rate= trail_file= trail_sync= trail_max_size= trail_keep= metrics_socket= metrics_allow= metrics_deny= metrics_permissions= metrics_group= run_as_user= run_as_group= sandbox= seccomp= peer='
    if [[ ${COMP_WORDS[1]} == help && $COMP_CWORD -eq 2 ]]; then
        names=${names//=/}
    else
        compopt -o nospace 2>/dev/null
        [[ $argument == --* ]] && names="--${names// / --}"
        [[ $COMP_CWORD -eq 1 ]] && names+=' serve check explain help version'
    fi
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$argument")
}
complete -F _secure_socket secure_socket

_secure_socketctl() {
    local line=${COMP_LINE:0:COMP_POINT} names words=()
    local argument=${line##*[[:space:]]}
    COMPREPLY=()
    if [[ $argument == *=* ]]; then
        local option=${argument%%=*} value=${argument#*=}
        local head=$option=
        case ${option#--} in
            socket_path)
                compopt -o filenames 2>/dev/null
                mapfile -t words < <(compgen -f -- "$value") ;;
            protocol)
                words=(SOCK_STREAM SOCK_SEQPACKET) ;;
            server)
                head+=${value%"${value##*,}"} value=${value##*,}
                words=(uid: user: gid: group: pid: exe: sha256: label: name: args: address: any) ;;
            process_proof|json|drop_oldest|confirm)
                words=(yes no) ;;
            framing)
                words=(lines length) ;;
        esac
        _secure_socket_offer "$argument" "$head" "${words[@]}"
        return
    fi
    names='socket_path= protocol= server= process_proof= connect_timeout= framing= json= count= drop_oldest= confirm= request_timeout= max_frame_size= respond_parallel= respond_timeout= mq_name= head='
    if [[ ${COMP_WORDS[1]} == help && $COMP_CWORD -eq 2 ]]; then
        names=${names//=/}
    else
        compopt -o nospace 2>/dev/null
        [[ $argument == --* ]] && names="--${names// / --}"
        [[ $COMP_CWORD -eq 1 ]] && names+=' connect publish subscribe request respond mqcat verify-trail help version'
    fi
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$argument")
}
complete -F _secure_socketctl secure_socketctl
